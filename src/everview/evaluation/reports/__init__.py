"""What results say: beside published numbers, beside one another, and as pages to read."""
