"""Pages for people. What they show comes from anywhere, so nothing of it may run or load anything."""
