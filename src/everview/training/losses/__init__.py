"""What is punished in training, part by part; smaller is better."""
