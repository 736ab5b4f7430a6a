"""From sources to train, validation and test, with a reason for every row that is not there."""
