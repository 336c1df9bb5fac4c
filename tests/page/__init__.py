"""The report page in a real browser. `make page` runs it; DOPT_REQUIRE=chromium fails where there is none."""
