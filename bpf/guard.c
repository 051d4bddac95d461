/* The arithmetic of guards (guard.py): Python's, in 64 bits. What needs more of them is left to user space. */

#define LARGEST 0x7fffffffffffffffULL
#define MAGNITUDE(x) ((x) < 0 ? 0 - (u64)(x) : (u64)(x))
#define FITS(x) if ((u64)(x) > LARGEST) goto unsure;

#define SET(r, x) r = x;
#define UNSIGNED(r, x) { u64 bits = x; FITS(bits) r = bits; }
/* Fails for what is not in memory at this moment, too. */
#define READ(r, address, nbytes) \
	{ u64 raw = 0; if (bpf_probe_read_user(&raw, nbytes, (void *)(u64)(address))) goto unsure; r = raw; }

#define NEG(r, a) { u64 bits = MAGNITUDE(a); FITS(bits) r = (a) < 0 ? bits : 0 - bits; }
#define INVERT(r, a) r = ~(a);
#define NOT(r, a) r = !(a);
#define AND(r, a, b) r = (a) & (b);
#define OR(r, a, b) r = (a) | (b);
#define XOR(r, a, b) r = (a) ^ (b);
#define ADD(r, a, b) r = (u64)(a) + (u64)(b); if ((((a) ^ r) & ((b) ^ r)) < 0) goto unsure;
#define SUB(r, a, b) r = (u64)(a) - (u64)(b); if ((((a) ^ (b)) & ((a) ^ r)) < 0) goto unsure;
#define MUL(r, a, b) \
	{ \
		u64 p = MAGNITUDE(a), q = MAGNITUDE(b); \
		if ((p | q) >> 31 && q && p > LARGEST / q) goto unsure; \
		r = (u64)(a) * (u64)(b); \
	}
/* BPF divides unsigned numbers only; Python rounds down. */
#define FLOORDIV(r, a, b) \
	{ \
		u64 p = MAGNITUDE(a), q = MAGNITUDE(b); \
		if (!q) goto no; \
		FITS(p) \
		r = p / q; \
		if (((a) ^ (b)) < 0) r = -r - (p % q != 0); \
	}
#define MOD(r, a, b) \
	{ \
		u64 p = MAGNITUDE(a), q = MAGNITUDE(b); \
		if (!q) goto no; \
		FITS(q) \
		r = p % q; \
		if (r && ((a) ^ (b)) < 0) r = q - r; \
		if ((b) < 0) r = -r; \
	}
#define SHL(r, a, n) \
	{ \
		if ((n) < 0) goto no; \
		if ((n) > 62) goto unsure; \
		r = (u64)(a) << (n); \
		if (r >> (n) != (a)) goto unsure; \
	}
#define SHR(r, a, n) { if ((n) < 0) goto no; r = (a) >> ((n) > 63 ? 63 : (n)); }
