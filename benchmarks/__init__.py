"""Questions, one sweep file each; `speed` measures dopt itself."""
