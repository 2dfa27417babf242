"""What the machine and its libraries offer: cores, processes, files, Keras, text."""
