"""What makes a page of thirty-five answers readable as a whole: its opening, its references, its editions."""
