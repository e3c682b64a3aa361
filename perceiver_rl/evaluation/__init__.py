"""Rollouts, intervals and TensorBoard: how good is a policy?"""
