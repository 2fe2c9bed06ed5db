"""What did pre-training buy? A grid of starts, label fractions, seeds and tasks, run fairly, resumable, with statistics."""
