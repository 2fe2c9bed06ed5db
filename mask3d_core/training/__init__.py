"""One engine for every task: config, loop, schedule, checkpoint, log."""
