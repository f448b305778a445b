"""What every back end that writes iptables and ipset text shares: model, canonical text, NetworkPolicy."""
