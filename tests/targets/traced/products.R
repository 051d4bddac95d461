# Matrix products one after the other; prints a sum over the last one.
rounds <- as.integer(commandArgs(trailingOnly = TRUE)[1])
set.seed(1)
a <- matrix(rnorm(500 * 500), 500)
b <- a
for (step in seq_len(rounds)) {
  b <- a %*% b
  b <- b / max(abs(b))
}
cat(sprintf("%.9f\n", sum(abs(b))))
