"""What the components of Watchkeeper have agreed on: words, files, records and policies."""
