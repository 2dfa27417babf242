"""Pages and pictures of results, made from the results' own files."""
