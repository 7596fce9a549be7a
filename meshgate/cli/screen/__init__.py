"""What commands print: values, tables, and signs of life."""
