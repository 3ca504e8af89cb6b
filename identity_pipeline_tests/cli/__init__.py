"""Tests of the command line, through click's runner on a real database and real loopback sources."""
