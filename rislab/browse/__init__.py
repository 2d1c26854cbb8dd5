"""Pages that show every answer of a table's rows beside the truth."""
