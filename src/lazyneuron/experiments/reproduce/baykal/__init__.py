"""Tables and figures of Baykal et al.: data-dependent sparse models and LSH."""
