"""Files with rows: text in its encoding, JSON, CSV, Parquet and Arrow, read row by row from files larger than memory.

The one place that knows encodings, delimiters and JSON with its errors; registry and importers say what rows mean.
"""

from ivcp.data.tables.cells import Line, other_delimiter, read_cells, read_delimiter, read_table, surplus_cells
from ivcp.data.tables.json_rows import parse_json, read_json
from ivcp.data.tables.rows import SUFFIXES, has_rows, is_table, read_rows, saved_files
from ivcp.data.tables.text import EncodingError, TableError, how_to_convert, read_text

__all__ = [
    "SUFFIXES",
    "EncodingError",
    "Line",
    "TableError",
    "has_rows",
    "how_to_convert",
    "is_table",
    "other_delimiter",
    "parse_json",
    "read_cells",
    "read_delimiter",
    "read_json",
    "read_rows",
    "read_table",
    "read_text",
    "saved_files",
    "surplus_cells",
]
