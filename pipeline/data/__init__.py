"""From the store to the arrays that heads train on."""
