"""The small virtual machine of the tests: Debian's stock kernel, with all of its modules, under software emulation.

For what the machine that runs the tests may not have: IPVS, dummy devices, SCTP sockets, the kernel of Debian 12.

    tests.vm.kernel     Debian's kernel package, downloaded and unpacked (never installed) into `.cache/vm`
    tests.vm.initramfs  the archive that the kernel boots from: busybox and the modules of the shared root
    tests.vm.machine    `Vm.boot()`, `vm.run([...])`: the running machine, seen from the host
    tests.vm.agent      the program in the guest that runs the commands
    tests.vm.plugin     gives tests that are marked `vm` to the guest and reports their results as ordinary ones
    tests.vm.worker     pytest in the guest
    python -m tests.vm  for people: `run`, `shell`, `build`

The guest sees the host's files, read only, at the same paths; what it writes goes to its own memory and ends with it.
"""
