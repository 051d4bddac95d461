#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

long droppable_call(char *data, long nbytes);
