"""How things are done: one module per noun of the domain; see the layout in the README."""

import os

# OpenMP's threads spin while they wait, and on a machine whose cores are busy (with PostgreSQL's backends, say) they spin
# against the work: scoring a row of 19 features with 100 boosted trees cost 15 us of CPU, and 5 us when threads wait
# passively; fitting them took 11.2 s and 1.5 s (two cores, both busy). libgomp reads this once, before scikit-learn loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
