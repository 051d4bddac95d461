#ifndef LOCKS_H
#define LOCKS_H
#include <pthread.h>
long locks_make_robust(pthread_mutex_t *mutex, int is_inheriting);
long locks_recover(pthread_mutex_t *mutex, int dies);
long locks_inherit(long nturns);
void locks_unlock(pthread_mutex_t *mutex);
long locks_timed(void);
long locks_requeue(void);
#endif
