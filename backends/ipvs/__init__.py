"""The IPVS back end: virtual servers, the dummy device and what IPVS cannot do itself.

Knows IPVS, its schedulers and its sysctls. Must not know the other back ends.
"""
