"""What people see of a study of tuning: one document, a table on the terminal, one HTML file with plots."""
