"""Published tables and figures, run anew at a size that fits the machine, beside what was published."""
