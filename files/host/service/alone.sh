# No balancer sends requests elsewhere meanwhile: they wait here. Stands in for drain.sh.
drain() { :; }
undrain() { :; }
await_usable() { :; }
come_back() { :; }
