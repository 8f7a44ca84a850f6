"""What streams of events are fed from: one loop per process reads the database, however many streams there are."""
