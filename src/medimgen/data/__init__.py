"""The only code that touches disk or network for data: manifest, fetch, radiographs, volumes, reports, tables."""
