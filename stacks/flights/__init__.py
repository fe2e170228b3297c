"""The sample team: departures of New York flights in 2013."""
