"""CPU features that unprivileged code can use: what the acceptor's CPU must have for the tracee's code to run there.

Names are those of the `flags` line of /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h). Programs choose code paths by
CPUID at their start, on the initiator; a path that the acceptor lacks would end in SIGILL, or worse.
"""

from collections.abc import Iterable

USABLE = frozenset(
    """
    fpu tsc cx8 cmov mmx fxsr sse sse2 ssse3 sse4_1 sse4_2 sse4a pni popcnt movbe cx16 lahf_lm abm bmi1 bmi2 adx aes
    pclmulqdq xsave avx f16c fma avx2 fma4 xop tbm rdrand rdseed rdtscp rdpid fsgsbase erms fsrm sha_ni clflush clflushopt
    clwb clzero prefetchwt1 3dnowprefetch avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512vbmi avx512_vbmi2
    avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_bf16 avx512_fp16 avx512_vp2intersect avx_vnni avx_ifma
    avx_ne_convert avx_vnni_int8 gfni vaes vpclmulqdq amx_tile amx_int8 amx_bf16 amx_fp16 serialize waitpkg movdiri
    movdir64b enqcmd cldemote ptwrite xgetbv1 rtm hle cmpccxadd prefetchi raoint sm3 sm4 sha512 pku ospke mwaitx
    """.split()
)


def usable(flags: Iterable[str]) -> list[str]:
    return sorted(USABLE.intersection(flags))


def lacking(needed: Iterable[str], here: Iterable[str]) -> list[str]:
    """What of `needed` is not in `here`; names that we do not know count too."""
    return sorted(set(needed).difference(here))
