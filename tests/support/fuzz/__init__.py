"""What the fuzzers and the tests of hostile bytes share: the readers, their files, mutations, the verdict."""
