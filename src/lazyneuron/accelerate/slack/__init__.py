"""The certificate, whose slack makes a sketch a proof; and slack as large as data need, the calibrated guarantee."""
