"""What people see when they compare runs: one document, tables on the terminal, one HTML file with plots, a console page."""
