#ifndef CPPTHREADS_H
#define CPPTHREADS_H
extern "C" {
long cpp_threads(int n);
long cpp_async(int n);
long cpp_handshake(int rounds);
}
#endif
