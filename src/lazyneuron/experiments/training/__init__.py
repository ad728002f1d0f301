"""What trained experiments share: tasks (digits, CIFAR-10, text), one training run, and variants of it side by side."""
