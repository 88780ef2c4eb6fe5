"""Reports: pages, tables and pictures of what was made and measured."""
