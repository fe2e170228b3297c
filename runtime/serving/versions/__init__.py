"""Model versions on their way into the server: find, download, prepare, load, swap, retire."""
