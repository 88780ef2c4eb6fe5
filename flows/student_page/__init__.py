"""The page on which a student is asked about one's own pictures: `magicseg serve-student`."""
