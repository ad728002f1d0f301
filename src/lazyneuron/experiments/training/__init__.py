"""What trained experiments share: tasks (digits, CIFAR-10, text), one training run, and variants of it side by side.

For reproduce/ and the sweep. trainer.py and the tasks decide the committed records to the bit: after a change
there they want to be measured anew. A new task is a file that derives from task.py's `Task`.
"""
