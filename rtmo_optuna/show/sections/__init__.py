"""What a report tells, by subject: the data of each and its drawing."""
