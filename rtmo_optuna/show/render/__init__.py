"""How a report is drawn and written."""
