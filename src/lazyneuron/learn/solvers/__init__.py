"""Ways to fit a polynomial of low degree on the cube; the estimators choose among them."""
