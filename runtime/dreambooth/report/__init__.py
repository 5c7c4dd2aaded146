"""What people look at: the contact sheet and the report."""
