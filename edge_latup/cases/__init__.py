"""Cases: find, read, check and write exams."""
