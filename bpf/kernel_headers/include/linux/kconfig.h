#ifndef RADIUM_KCONFIG_H
#define RADIUM_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_X86_64 1
#include <linux/types.h>
#endif
