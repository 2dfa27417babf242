"""Video files in, pictures out; and pictures back into video files."""
