"""Action clips that the project draws itself: articulated figures doing things."""
