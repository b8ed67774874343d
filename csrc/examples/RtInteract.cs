// rtinteract for C#: the part of rtinteract.h that a game needs, and a loop that uses it. Works under .NET, Mono and Unity; put
// librtinteract beside the program. Structs have the layout that tests/test_abi_header.py pins.
using System;
using System.Runtime.InteropServices;
using System.Threading;

public static class RtInteract
{
    const string Library = "rtinteract";
    public const uint AbiVersion = 0x00010000;
    public const int Ok = 0, NotReady = 1, Actor = 0, Reactor = 1, AxesUnity = 2;

    [StructLayout(LayoutKind.Sequential)]
    public struct ModelDesc
    {
        public uint StructSize, Abi;
        public IntPtr Path, Data;
        public UIntPtr DataSize;
        public IntPtr Device, Precision;
        public int Threads, Reserved;
        public ulong VramLimit;
        public IntPtr PromptBank, PythonExecutable, PythonLibrary, Log, LogUser;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct SkeletonDesc
    {
        public uint StructSize;
        public int Axes;
        public IntPtr Preset;
        public int JointCount;
        public float MetresPerUnit;
        public IntPtr Names, Parents, RestTranslations, RestRotations;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 9)] public float[] Basis;
        public int Reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct SessionDesc
    {
        public uint StructSize, Abi;
        public IntPtr Actor, Reactor, Prompt;
        public ulong Seed;
        public int Window, Horizon, Hop, Iterations;
        public uint Flags;
        public float BlendS, SettleS, IdleAfterS;
        public IntPtr Idle;
        public int IdleCount, Reserved;
    }

    // Blittable: it crosses without a copy, and pins nothing but the caller's own array.
    [StructLayout(LayoutKind.Sequential)]
    public struct Pose
    {
        public uint StructSize;
        public int JointCount;
        public float X, Y, Z;
        public int Reserved;
        public IntPtr Rotations;
    }

    [DllImport(Library)] public static extern uint rti_abi_version();
    [DllImport(Library)] public static extern UIntPtr rti_last_error(byte[] text, UIntPtr capacity);
    [DllImport(Library)] public static extern int rti_model_load(ref ModelDesc desc, out IntPtr model);
    [DllImport(Library)] public static extern void rti_model_destroy(ref IntPtr model);
    [DllImport(Library)] public static extern int rti_session_create(IntPtr model, ref SessionDesc desc, out IntPtr session);
    [DllImport(Library)] public static extern int rti_session_joint_count(IntPtr session, int person);
    [DllImport(Library)] public static extern int rti_session_push_pose(IntPtr session, int person, double time, ref Pose pose);
    [DllImport(Library)] public static extern int rti_session_pull_pose(IntPtr session, double time, ref Pose pose, IntPtr info);
    [DllImport(Library)] public static extern void rti_session_destroy(ref IntPtr session);

    public static string LastError()
    {
        var text = new byte[512];
        rti_last_error(text, (UIntPtr)text.Length);
        return System.Text.Encoding.UTF8.GetString(text, 0, Array.IndexOf(text, (byte)0));
    }

    static void Check(int status)
    {
        if (status < 0) throw new InvalidOperationException(LastError());
    }

    // One pair of Unity humanoids. Without a model the reactor stands, so the game's loop is the same.
    public static int Main(string[] arguments)
    {
        var model = IntPtr.Zero;
        var load = new ModelDesc { StructSize = (uint)Marshal.SizeOf<ModelDesc>(), Abi = AbiVersion };
        if (arguments.Length == 0) Check(rti_model_load(ref load, out model));

        var preset = Marshal.StringToHGlobalAnsi("unity");
        var skeleton = new SkeletonDesc { StructSize = (uint)Marshal.SizeOf<SkeletonDesc>(), Axes = AxesUnity, Preset = preset,
                                          MetresPerUnit = 1, Basis = new float[9] };
        var skeletonAt = Marshal.AllocHGlobal(Marshal.SizeOf<SkeletonDesc>());
        Marshal.StructureToPtr(skeleton, skeletonAt, false);
        var desc = new SessionDesc { StructSize = (uint)Marshal.SizeOf<SessionDesc>(), Abi = AbiVersion, Actor = skeletonAt,
                                     Flags = 1, BlendS = 0.25f, SettleS = 0.4f, IdleAfterS = 2 };
        Check(rti_session_create(model, ref desc, out var session));
        Marshal.FreeHGlobal(skeletonAt);
        Marshal.FreeHGlobal(preset);

        int joints = rti_session_joint_count(session, Reactor);
        var rotations = new float[4 * joints];
        for (int j = 0; j < joints; ++j) rotations[4 * j] = 1;
        // The actor's pose goes in and the reactor's comes out through one array; a game has two.
        var pin = GCHandle.Alloc(rotations, GCHandleType.Pinned);
        var pose = new Pose { StructSize = (uint)Marshal.SizeOf<Pose>(), JointCount = joints, Y = 0.95f,
                              Rotations = pin.AddrOfPinnedObject() };
        for (int tick = 0; tick < 120; ++tick)
        {
            double time = tick / 60.0;
            Check(rti_session_push_pose(session, Actor, time, ref pose));
            Check(rti_session_pull_pose(session, time, ref pose, IntPtr.Zero));
            Thread.Sleep(16);
        }
        Console.WriteLine($"{joints} joints, the reactor stands at {pose.X:F2} {pose.Y:F2} {pose.Z:F2}");
        pin.Free();
        rti_model_destroy(ref model);
        rti_session_destroy(ref session);
        return 0;
    }
}
