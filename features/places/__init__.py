"""Where the bytes of a clip are: in a file, in a folder of pictures, or inside of an archive."""
