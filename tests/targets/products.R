# Matrix products of R, each printed to the last bit. Knows nothing of radium.
set.seed(7)
a <- matrix(rnorm(300 * 300), 300)
b <- matrix(rnorm(300 * 300), 300)
for (i in 1:4) {
    a <- (a %*% b) / 17
    cat(i, sprintf("%a", c(sum(a), a[17, 3])), "\n")
}
cat(sprintf("%a", c(crossprod(a)[5, 6], solve(a + diag(300), b)[1, 1])), "\n")
cat("EXIT-SUCCESS\n")
